"""Run the conversations service."""

from services.conversations.app import run

if __name__ == "__main__":
    run()
