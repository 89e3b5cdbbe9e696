"""`python cli.py run ...` from a checkout; the same as `npc-local run ...`."""

from npc_local.cli.main import main

if __name__ == "__main__":
    main()
