"""Run the execution service."""

from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.kit.server import main

if __name__ == "__main__":
    main(ExecutionSettings, compose)
