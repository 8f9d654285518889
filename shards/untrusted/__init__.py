"""What must hold in strangers' files before a library parses them, and in rows after."""
