"""Speed and search quality, measured beside what they are measured against."""
