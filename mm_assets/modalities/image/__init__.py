"""Pictures: PNG, JPEG and WebP."""
