"""Messages and domain objects, one module for each noun; nothing here waits or stores."""
