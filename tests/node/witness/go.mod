module witness

go 1.26.0
