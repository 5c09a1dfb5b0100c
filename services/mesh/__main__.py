"""`python -m services.mesh` is `conductor up`."""

from services.mesh.cli import main

if __name__ == "__main__":
    main()
