"""What stands behind the ports of content, besides the stores."""
