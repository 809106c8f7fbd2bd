/// Text in XML and HTML.
enum Markup {
    /// The text with everything replaced that would be markup, in an element and in an attribute.
    static func escaped(_ text: String) -> String {
        var out = ""
        for character in text.unicodeScalars {
            switch character {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            // Other controls have no place in XML 1.0.
            case _ where character.value < 32 && character != "\n" && character != "\t": out += "\u{FFFD}"
            default: out.unicodeScalars.append(character)
            }
        }
        return out
    }
}
