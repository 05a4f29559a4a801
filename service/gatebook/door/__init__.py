"""The door: who calls, whether they may, and whether there is room; before any work is done."""
