import CYAML

/// A YAML value with its place in the file.
struct YAMLNode {
    indirect enum Content {
        /// `isQuoted` scalars are strings whatever they look like.
        case scalar(String, isQuoted: Bool)
        case sequence([YAMLNode])
        case mapping([(key: YAMLNode, value: YAMLNode)])
    }

    let content: Content
    let line: Int
    let column: Int

    /// A gateway with some thousand routes is about a megabyte.
    static let sizeLimit = 4 << 20
    /// Values and keys: 6,000 routes of 33 each.
    static let nodeLimit = 200_000
    static let depthLimit = 32
    /// libyaml looks through all anchors for each anchor and each alias.
    static let anchorLimit = 1000

    /// Parses the one document of a file (libyaml); whatever stands behind it is an error, and not left out. Aliases and merge keys (`<<`)
    /// are followed, and counted like what they stand for (nodes and bytes), so that a few lines cannot unfold into gigabytes. A key given
    /// twice is an error, and so is a tag that would have to be followed.
    static func parse(_ text: [UInt8], file: String) throws(Problem) -> YAMLNode {
        guard text.count <= sizeLimit else {
            throw Problem(file: file, line: 0, column: 0, message: "larger than \(sizeLimit >> 20) MiB, which no stack file is")
        }
        try measure(text, file: file)
        var parser = yaml_parser_t()
        guard yaml_parser_initialize(&parser) == 1 else {
            throw Problem(file: file, line: 0, column: 0, message: "out of memory")
        }
        defer { yaml_parser_delete(&parser) }
        let result: Result<YAMLNode, Problem> = text.withUnsafeBufferPointer { bytes in
            yaml_parser_set_input_string(&parser, bytes.baseAddress, bytes.count)
            var document = yaml_document_t()
            guard yaml_parser_load(&parser, &document) == 1 else { return .failure(problem(parser, bytes, file)) }
            defer { yaml_document_delete(&document) }
            guard let root = yaml_document_get_root_node(&document) else {
                return .failure(Problem(file: file, line: 0, column: 0, message: "empty"))
            }
            var converter = Converter(file: file)
            do throws(Problem) { return .success(try converter.convert(root, &document, depth: 0)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// Goes through the whole text once without keeping it, because libyaml's tree has no limits (half a million `[` or 90,000 anchors take
    /// it minutes) and ends with the first document. What is no YAML within the first document is left to `parse` to tell.
    private static func measure(_ text: [UInt8], file: String) throws(Problem) {
        var parser = yaml_parser_t()
        guard yaml_parser_initialize(&parser) == 1 else { return }
        defer { yaml_parser_delete(&parser) }
        let found: Problem? = text.withUnsafeBufferPointer { bytes in
            yaml_parser_set_input_string(&parser, bytes.baseAddress, bytes.count)
            var size = Size(), isOver = false
            while true {
                var event = yaml_event_t()
                guard yaml_parser_parse(&parser, &event) == 1 else { return isOver ? problem(parser, bytes, file) : nil }
                defer { yaml_event_delete(&event) }
                let place = (line: Int(event.start_mark.line) + 1, column: Int(event.start_mark.column) + 1)
                switch event.type {
                case YAML_STREAM_END_EVENT: return nil
                case YAML_DOCUMENT_END_EVENT: isOver = true
                case YAML_DOCUMENT_START_EVENT where isOver:
                    return Problem(
                        file: file, line: place.line, column: place.column,
                        message: "a second document begins here; a file has one: remove the '---', or make a file of each")
                default: size.count(event)
                }
                if let reason = size.excess {
                    return Problem(file: file, line: place.line, column: place.column, message: reason)
                }
            }
        }
        if let found { throw found }
    }

    /// What a document has had so far.
    private struct Size {
        private var nodes = 0
        private var anchors = 0
        private var depth = 0

        mutating func count(_ event: yaml_event_t) {
            var anchor: UnsafeMutablePointer<yaml_char_t>?
            switch event.type {
            case YAML_SEQUENCE_END_EVENT, YAML_MAPPING_END_EVENT:
                depth -= 1
                return
            case YAML_ALIAS_EVENT: break
            case YAML_SCALAR_EVENT: anchor = event.data.scalar.anchor
            case YAML_SEQUENCE_START_EVENT:
                depth += 1
                anchor = event.data.sequence_start.anchor
            case YAML_MAPPING_START_EVENT:
                depth += 1
                anchor = event.data.mapping_start.anchor
            default: return
            }
            nodes += 1
            if anchor != nil { anchors += 1 }
        }

        /// Why it is too large; nil when it is not.
        var excess: String? {
            if nodes > nodeLimit { return "too large or too deep: more than \(nodeLimit) keys and values" }
            if depth > depthLimit { return "too large or too deep: more than \(depthLimit) levels" }
            return anchors > anchorLimit ? "too large or too deep: more than \(anchorLimit) anchors" : nil
        }
    }

    private static func tooLarge(_ line: Int, _ column: Int, _ file: String) -> Problem {
        Problem(file: file, line: line, column: column, message: "too large or too deep once its aliases are unfolded")
    }

    private static func problem(_ parser: yaml_parser_t, _ bytes: UnsafeBufferPointer<UInt8>, _ file: String) -> Problem {
        let text = parser.problem.map { String(cString: $0) } ?? "not YAML"
        let context = parser.context.map { " \(String(cString: $0))" } ?? ""
        var line = Int(parser.problem_mark.line) + 1, column = Int(parser.problem_mark.column) + 1
        if parser.error == YAML_READER_ERROR {
            // Bytes that are no text: libyaml only counts them.
            let before = bytes.prefix(parser.problem_offset)
            line = before.count { $0 == 10 } + 1
            column = before.count - (before.lastIndex(of: 10) ?? -1)
        }
        let isTab = parser.error == YAML_SCANNER_ERROR && isTab(bytes, line, column)
        let advice = isTab ? "a tab; YAML is indented with spaces only" : "\(text)\(context)"
        return Problem(file: file, line: line, column: column, message: "not valid YAML: \(advice)")
    }

    /// Whether the character at a place, both counted from 1, is a tab.
    private static func isTab(_ bytes: UnsafeBufferPointer<UInt8>, _ line: Int, _ column: Int) -> Bool {
        let lines = bytes.split(separator: 10, maxSplits: line, omittingEmptySubsequences: false)
        guard line <= lines.count else { return false }
        return String(decoding: lines[line - 1], as: UTF8.self).unicodeScalars.dropFirst(column - 1).first == "\t"
    }

    private struct Converter {
        let file: String
        /// Those that say what stands there anyway. (libyaml gives every node without a tag one of the first three.)
        private static let tags = Set(["str", "seq", "map", "int", "float", "bool"].map { "tag:yaml.org,2002:\($0)" })
        var nodes = 0
        /// Of all words and texts.
        var bytes = 0

        mutating func convert(
            _ node: UnsafeMutablePointer<yaml_node_t>, _ document: inout yaml_document_t, depth: Int
        ) throws(Problem) -> YAMLNode {
            let line = Int(node.pointee.start_mark.line) + 1, column = Int(node.pointee.start_mark.column) + 1
            nodes += 1
            if node.pointee.type == YAML_SCALAR_NODE { bytes += node.pointee.data.scalar.length }
            guard nodes <= YAMLNode.nodeLimit, depth < YAMLNode.depthLimit, bytes <= YAMLNode.sizeLimit else {
                throw YAMLNode.tooLarge(line, column, file)
            }
            if let tag = node.pointee.tag.map({ UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self) }).map(String.init(cString:)),
                !Converter.tags.contains(tag)
            {
                throw Problem(
                    file: file, line: line, column: column, message: "the tag '\(tag)' means nothing here; write the value itself")
            }
            switch node.pointee.type {
            case YAML_SCALAR_NODE:
                let scalar = node.pointee.data.scalar
                if UnsafeBufferPointer(start: scalar.value, count: scalar.length).contains(0) {
                    throw Problem(
                        file: file, line: line, column: column,
                        message: "a text with a NUL character: programs and the system would cut it there")
                }
                let text = String(decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
                return YAMLNode(content: .scalar(text, isQuoted: scalar.style != YAML_PLAIN_SCALAR_STYLE), line: line, column: column)
            case YAML_SEQUENCE_NODE:
                var items: [YAMLNode] = []
                var item = node.pointee.data.sequence.items.start
                while let current = item, current < node.pointee.data.sequence.items.top {
                    items.append(try convert(yaml_document_get_node(&document, current.pointee), &document, depth: depth + 1))
                    item = current + 1
                }
                return YAMLNode(content: .sequence(items), line: line, column: column)
            default:
                return YAMLNode(content: .mapping(try pairs(node, &document, depth)), line: line, column: column)
            }
        }

        private mutating func pairs(
            _ node: UnsafeMutablePointer<yaml_node_t>, _ document: inout yaml_document_t, _ depth: Int
        ) throws(Problem) -> [(key: YAMLNode, value: YAMLNode)] {
            var pairs: [(key: YAMLNode, value: YAMLNode)] = []
            var lines: [String: Int] = [:]
            var merged: [[(key: YAMLNode, value: YAMLNode)]] = []
            var pair = node.pointee.data.mapping.pairs.start
            while let current = pair, current < node.pointee.data.mapping.pairs.top {
                let key = try convert(yaml_document_get_node(&document, current.pointee.key), &document, depth: depth + 1)
                guard case .scalar(let name, let isQuoted) = key.content else {
                    throw Problem(file: file, line: key.line, column: key.column, message: "a key must be a word")
                }
                if let before = lines.updateValue(key.line, forKey: name) {
                    throw Problem(
                        file: file, line: key.line, column: key.column, message: "'\(name)' is given twice (first in line \(before))")
                }
                let value = try convert(yaml_document_get_node(&document, current.pointee.value), &document, depth: depth + 1)
                if name == "<<", !isQuoted {
                    merged = try groups(value)
                } else {
                    pairs.append((key, value))
                }
                pair = current + 1
            }
            // What stands here wins over what is merged in, and of that the first.
            for (key, value) in merged.joined() {
                guard case .scalar(let name, _) = key.content, lines.updateValue(key.line, forKey: name) == nil else { continue }
                pairs.append((key, value))
            }
            return pairs
        }

        /// What stands behind `<<`: a group of keys, or a list of such groups.
        private func groups(_ node: YAMLNode) throws(Problem) -> [[(key: YAMLNode, value: YAMLNode)]] {
            if case .mapping(let pairs) = node.content { return [pairs] }
            var groups: [[(key: YAMLNode, value: YAMLNode)]] = []
            if case .sequence(let items) = node.content {
                for item in items {
                    guard case .mapping(let pairs) = item.content else { throw notGroups(item) }
                    groups.append(pairs)
                }
                return groups
            }
            throw notGroups(node)
        }

        private func notGroups(_ node: YAMLNode) -> Problem {
            Problem(
                file: file, line: node.line, column: node.column,
                message: "'<<' takes the keys of a group, or of a list of groups, and this is \(node.kind): write <<: *ANCHOR")
        }
    }

    /// What this is, in words.
    var kind: String {
        switch content {
        case .scalar(let text, _): text.isEmpty ? "nothing" : "'\(text.prefix(60))'"
        case .sequence: "a list"
        case .mapping: "a group of keys"
        }
    }
}
