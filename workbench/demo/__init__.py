"""The browser demo: several methods side by side on a visitor's photo. ``workbench demo`` serves it."""
