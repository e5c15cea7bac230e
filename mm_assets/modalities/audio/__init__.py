"""Sound: WAV, FLAC, Ogg and MP3."""
