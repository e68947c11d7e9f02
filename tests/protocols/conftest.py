"""What every protocol's tests share; that this file is here puts its directory on the import path."""
