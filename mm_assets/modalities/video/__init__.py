"""Moving pictures, with or without sound: MP4, QuickTime, WebM, Matroska and AVI."""
