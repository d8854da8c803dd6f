"""Who we are to whom: secrets, auth files, credential helpers, and one keychain over them."""
