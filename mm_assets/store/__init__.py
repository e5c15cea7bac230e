"""S3 as the git of data: immutable objects, manifests, memoized actions, and refs moved by one conditional write."""
