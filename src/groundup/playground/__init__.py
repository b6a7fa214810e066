"""What the page of the server asks: models looked into, runs started, all of it described and started."""
