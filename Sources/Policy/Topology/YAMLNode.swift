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

    /// Parses one document (libyaml). Aliases are followed, and counted like what they stand for, so that a few lines cannot unfold
    /// into gigabytes. A key given twice is an error.
    static func parse(_ text: [UInt8], file: String) throws(Problem) -> YAMLNode {
        guard text.count <= sizeLimit else {
            throw Problem(file: file, line: 0, column: 0, message: "larger than \(sizeLimit >> 20) MiB, which no stack file is")
        }
        var parser = yaml_parser_t()
        guard yaml_parser_initialize(&parser) == 1 else {
            throw Problem(file: file, line: 0, column: 0, message: "out of memory")
        }
        defer { yaml_parser_delete(&parser) }
        let result: Result<YAMLNode, Problem> = text.withUnsafeBufferPointer { bytes in
            yaml_parser_set_input_string(&parser, bytes.baseAddress, bytes.count)
            var document = yaml_document_t()
            guard yaml_parser_load(&parser, &document) == 1 else { return .failure(problem(parser, file)) }
            defer { yaml_document_delete(&document) }
            guard let root = yaml_document_get_root_node(&document) else {
                return .failure(Problem(file: file, line: 0, column: 0, message: "empty"))
            }
            var converter = Converter(file: file)
            do throws(Problem) { return .success(try converter.convert(root, &document, depth: 0)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    private static func problem(_ parser: yaml_parser_t, _ file: String) -> Problem {
        let text = parser.problem.map { String(cString: $0) } ?? "not YAML"
        let context = parser.context.map { " \(String(cString: $0))" } ?? ""
        return Problem(
            file: file, line: Int(parser.problem_mark.line) + 1, column: Int(parser.problem_mark.column) + 1,
            message: "not valid YAML: \(text)\(context)")
    }

    private struct Converter {
        let file: String
        var nodes = 0

        mutating func convert(
            _ node: UnsafeMutablePointer<yaml_node_t>, _ document: inout yaml_document_t, depth: Int
        ) throws(Problem) -> YAMLNode {
            let line = Int(node.pointee.start_mark.line) + 1, column = Int(node.pointee.start_mark.column) + 1
            nodes += 1
            guard nodes <= YAMLNode.nodeLimit, depth < YAMLNode.depthLimit else {
                throw Problem(file: file, line: line, column: column, message: "too large or too deep once its aliases are unfolded")
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
                    throw Problem(file: file, line: key.line, column: key.column, message: "'\(name)' is given twice (first in line \(before))")
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
