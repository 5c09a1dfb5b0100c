"""Run the content service."""

from services.content.app import run

if __name__ == "__main__":
    run()
