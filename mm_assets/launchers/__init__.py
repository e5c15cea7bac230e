"""Stage request to process or pod, as pure functions: environment identity, resources, pod specs."""
