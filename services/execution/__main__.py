"""Run the execution service."""

from services.execution.app import run

if __name__ == "__main__":
    run()
