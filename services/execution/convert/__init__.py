"""Messages and domain objects, both directions side by side; nothing here waits or stores."""
