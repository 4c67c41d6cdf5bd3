"""Images: encoding, retention and contact sheets of the trials' pictures."""
