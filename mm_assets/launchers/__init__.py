"""Workers of launched assets as processes or pods: environment identity, resources, messages."""
