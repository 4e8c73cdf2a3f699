// Nothing: a package with a function that is linked from elsewhere must have an assembly file.
