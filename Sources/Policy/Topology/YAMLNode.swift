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

    static let sizeLimit = 1 << 20
    static let nodeLimit = 20_000
    static let depthLimit = 32
    /// libyaml looks through all anchors for each anchor and each alias.
    static let anchorLimit = 1000

    /// Parses one document (libyaml). Aliases are followed, and counted like what they stand for (nodes and bytes), so that a few lines
    /// cannot unfold into gigabytes. A key given twice is an error.
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

    /// Goes through the document once without keeping it, because libyaml's tree has no limits: half a million `[` or 90,000 anchors take
    /// it minutes. What is no YAML is left to `parse` to tell.
    private static func measure(_ text: [UInt8], file: String) throws(Problem) {
        var parser = yaml_parser_t()
        guard yaml_parser_initialize(&parser) == 1 else { return }
        defer { yaml_parser_delete(&parser) }
        let beyond: yaml_mark_t? = text.withUnsafeBufferPointer { bytes in
            yaml_parser_set_input_string(&parser, bytes.baseAddress, bytes.count)
            var nodes = 0, anchors = 0, depth = 0
            while true {
                var event = yaml_event_t()
                guard yaml_parser_parse(&parser, &event) == 1 else { return nil }
                defer { yaml_event_delete(&event) }
                switch event.type {
                case YAML_DOCUMENT_END_EVENT, YAML_STREAM_END_EVENT: return nil
                case YAML_SEQUENCE_END_EVENT, YAML_MAPPING_END_EVENT: depth -= 1
                case YAML_ALIAS_EVENT: nodes += 1
                case YAML_SCALAR_EVENT:
                    nodes += 1
                    if event.data.scalar.anchor != nil { anchors += 1 }
                case YAML_SEQUENCE_START_EVENT, YAML_MAPPING_START_EVENT:
                    nodes += 1
                    depth += 1
                    let anchor = event.type == YAML_MAPPING_START_EVENT ? event.data.mapping_start.anchor : event.data.sequence_start.anchor
                    if anchor != nil { anchors += 1 }
                default: break
                }
                if nodes > nodeLimit || anchors > anchorLimit || depth > depthLimit { return event.start_mark }
            }
        }
        if let beyond { throw tooLarge(Int(beyond.line) + 1, Int(beyond.column) + 1, file) }
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
        return Problem(file: file, line: line, column: column, message: "not valid YAML: \(text)\(context)")
    }

    private struct Converter {
        let file: String
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
            switch node.pointee.type {
            case YAML_SCALAR_NODE:
                let scalar = node.pointee.data.scalar
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
            var pair = node.pointee.data.mapping.pairs.start
            while let current = pair, current < node.pointee.data.mapping.pairs.top {
                let key = try convert(yaml_document_get_node(&document, current.pointee.key), &document, depth: depth + 1)
                guard case .scalar(let name, _) = key.content else {
                    throw Problem(file: file, line: key.line, column: key.column, message: "a key must be a word")
                }
                if let before = lines.updateValue(key.line, forKey: name) {
                    throw Problem(
                        file: file, line: key.line, column: key.column, message: "'\(name)' is given twice (first in line \(before))")
                }
                pairs.append((key, try convert(yaml_document_get_node(&document, current.pointee.value), &document, depth: depth + 1)))
                pair = current + 1
            }
            return pairs
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
