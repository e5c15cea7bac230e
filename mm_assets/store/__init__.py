"""S3: immutable objects, actions and what they led to, manifests, and refs moved by one conditional write."""
