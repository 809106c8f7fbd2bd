import Basics
import Glibc
import StackFile
import StackModel

let initVerb = Verb(
    name: "init", summary: "write a stack file from a compose file, a Procfile or a command",
    help: """
        usage: muster init [--from FILE]
               muster init -- COMMAND [ARGUMENT]...

        Writes muster.yaml in the current folder, from the compose file or the Procfile that is there, or for one command. What could not be
        taken over stands in it as a comment, and is told. An existing muster.yaml is never overwritten. Nothing is started.

          --from FILE   this compose file or Procfile

        example:
          muster init -- python3 app.py
          muster up
        """,
    options: ["--from"], takesCommand: true
) { arguments in
    try arguments.atMost(0, "a file is named with --from, a command follows --")
    let target = "muster.yaml"
    // Before anything is read: the answer would be the same, whatever stands in the other file.
    guard !Files.exists(target) else {
        throw Exit.failed("\(target) exists already, and is not overwritten: remove it, or go to another folder")
    }
    var draft = try draft(arguments)
    // As Compose does: the folder's.
    draft.name(as: Files.name(of: Files.currentFolder()))
    guard !draft.isEmpty else {
        for remark in draft.remarks { printError("  \(StackDraft.comment(remark.text))") }
        throw Exit.failed("nothing in it can be run by Muster, so no \(target) is written")
    }
    let text = draft.text
    do throws(Problems) {
        _ = try Stack.read(Array(text.utf8), path: target, files: .onDisk(isStarting: false)) { environmentValue($0) ?? "x" }
    } catch {
        throw Exit.failed("what was made of it is no stack that can be read, so nothing is written:\n\(error)")
    }
    try writeNew(target, text)
    tell(draft, target)
}

/// Names of files that `init` looks for.
private let composeNames = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"]

private func draft(_ arguments: Arguments) throws -> StackDraft {
    if !arguments.command.isEmpty {
        if arguments.value("--from") != nil { throw Exit.usage("either --from FILE or a command") }
        return StackDraft.command(arguments.command)
    }
    let found = (composeNames + ["Procfile"]).filter(Files.exists)
    guard let file = arguments.value("--from") ?? found.first else {
        throw Exit.usage("there is neither a compose file nor a Procfile here: name one with --from, or a command after --")
    }
    if arguments.value("--from") == nil, found.count > 1 {
        throw Exit.usage("which one? There are \(found.joined(separator: " and ")): name one with --from")
    }
    let bytes: [UInt8]
    do throws(SystemError) { bytes = try readRegular(file) } catch { throw Exit.usage("\(error)") }
    do throws(Problems) {
        let isProcfile = Files.name(of: file).hasPrefix("Procfile")
        if isProcfile { return try StackDraft.procfile(bytes, file: Files.name(of: file)) }
        let folder = Files.folder(of: file)
        return try StackDraft.compose(bytes, file: Files.name(of: file)) { name in
            try? readRegular(name.hasPrefix("/") ? name : "\(folder)/\(name)")
        }
    } catch { throw Exit.usage("\(error)") }
}

/// A pipe or a device would be waited for without end.
private func readRegular(_ path: String) throws(SystemError) -> [UInt8] {
    var info = stat()
    guard stat(path, &info) == 0 else { throw SystemError("open \(path)") }
    guard info.st_mode & S_IFMT == S_IFREG else { throw SystemError("read \(path), which is no file", EINVAL) }
    return try Files.read(path, limit: Stack.sizeLimit)
}

/// Whoever has made the file meanwhile keeps it.
private func writeNew(_ path: String, _ text: String) throws {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw Exit.failed("\(SystemError("create \(path)"))") }
    var text = text, offset = 0, code: Int32 = 0
    text.withUTF8 { bytes in
        while offset < bytes.count {
            let wrote = write(descriptor, bytes.baseAddress! + offset, bytes.count - offset)
            if wrote < 0, errno == EINTR { continue }
            if wrote <= 0 {
                code = errno
                return
            }
            offset += wrote
        }
    }
    if close(descriptor) != 0, code == 0 { code = errno }
    guard code == 0 else {
        unlink(path)
        throw Exit.failed("\(SystemError("write \(path)", code))")
    }
}

private func tell(_ draft: StackDraft, _ target: String) {
    let shown = draft.remarks.prefix(40)
    for remark in shown {
        let place = remark.line == 0 ? "" : "line \(remark.line): "
        printError("  \(place)\(remark.about.map { "\($0): " } ?? "")\(StackDraft.comment(remark.text))")
    }
    if draft.remarks.count > shown.count { printError("  and \(draft.remarks.count - shown.count) more, as comments in \(target)") }
    printError("wrote \(target); look at it, then: \(selfName) up")
}
