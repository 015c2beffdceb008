"""The web page where a person looks at light curves and decides: `server` and its static files."""
