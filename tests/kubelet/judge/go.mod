// The versions that are built are in versions/; this file only marks the module.
module judge

go 1.24.0
