"""Images: pictures of trials on disk: how they are packed, which stay, and contact sheets of them."""
