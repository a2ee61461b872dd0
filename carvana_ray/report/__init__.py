"""Results for people: training curves, contact sheets, and one HTML page."""
