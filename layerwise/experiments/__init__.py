"""What the method is measured by: the paper, patches, and speed."""
