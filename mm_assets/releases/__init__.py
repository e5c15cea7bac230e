"""The release spec: what a release is made from, pinned by digest when it is opened."""
