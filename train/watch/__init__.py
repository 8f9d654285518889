"""What can be seen of a run while it goes on: its log, pictures, seconds, profiles, and curves afterwards."""
