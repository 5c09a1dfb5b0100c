"""What stands behind the ports of conversations, besides the stores."""
