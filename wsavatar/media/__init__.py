"""Sound, video files and JPEG, by the libraries that make and read them; nothing of avatars."""
