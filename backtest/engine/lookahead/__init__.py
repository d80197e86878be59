"""The check that columns and signals use nothing that was unknown at the close of their bar."""
