"""`make demo`: the road from videos to a page to look at, in one command (road.py); the page is report.py's."""
