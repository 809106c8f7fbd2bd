import Basics

/// Where the project's sources are: fixtures, scripts and corpora are read in place.
public let projectFolder = Files.folder(of: Files.folder(of: Files.folder(of: #filePath)))
