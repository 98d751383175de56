"""Completion of commands, options and names of losses in shells, by scripts that run no Python."""

import re
from typing import Any

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")

BASH = """\
_fastloss() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command="" i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in -*) ;; *) command+="${{command:+ }}${{COMP_WORDS[i]}}"
            case "$command" in {commands}) ;; *) command=${{command% *}}; break ;; esac ;;
        esac
    done
    case "$command:$before" in
{values}    esac
    case "$command:$word" in
{words}    esac
}}
complete -o default -F _fastloss fastloss
"""

ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def script(root: Any, shell: str, losses: list[str]) -> str:
    """Return the script that completes the command in a shell, from its tree of commands."""
    tree = dict(_commands(root, ()))
    text = _fish(tree, losses) if shell == "fish" else _bash(tree, losses)
    return f"{ZSH}{text}" if shell == "zsh" else text


def _commands(command: Any, path: tuple[str, ...]) -> Any:
    """Yield the words of each command and the command itself, groups before their members."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def _options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]


def _choices(option: Any, losses: list[str]) -> list[str]:
    """Return the values that an option takes, where they are few or losses."""
    if "--loss" in option.opts:
        return losses
    metavar = option.metavar or ""
    return metavar.split("|") if re.fullmatch(r"[a-z][\w-]*(\|[a-z][\w-]*)+", metavar) else []


def _names(command: Any, losses: list[str]) -> list[str]:
    """Return the words that may come first: commands of a group, or losses where they are the argument."""
    found = [*getattr(command, "commands", {})]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    metavar = arguments[0].metavar or "" if arguments else ""
    return found or (losses if "NAME" in metavar else metavar.split("|") if "|" in metavar else [])


def _bash(tree: dict[tuple[str, ...], Any], losses: list[str]) -> str:
    values, words = [], []

    def reply(pattern: str, found: list[str]) -> str:
        return f'        {pattern}) COMPREPLY=($(compgen -W "{" ".join(found)}" -- "$word")); return ;;\n'

    for path, command in tree.items():
        name = " ".join(path)
        for option in _options(command):
            if found := _choices(option, losses):
                values.append(reply("|".join(f'"{name}:{o}"' for o in option.opts), found))
        options = [o for option in _options(command) for o in option.opts] + ["--help"]
        words.append(reply(f'"{name}:"-*', options))
        if found := _names(command, losses):
            words.append(reply(f'"{name}:"*', found))
    commands = "|".join(f'"{" ".join(path)}"' for path in tree if path)
    return BASH.format(commands=commands, values="".join(values), words="".join(words))


def _fish(tree: dict[tuple[str, ...], Any], losses: list[str]) -> str:
    lines = []
    for path, command in tree.items():
        inner = " ".join(getattr(command, "commands", {}))
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in path)
        if inner:
            seen += f"{'; and ' if seen else ''}not __fish_seen_subcommand_from {inner}"
        start = f"complete -c fastloss -n '{seen}'"
        lines += [f"{start} -f -a {n} -d '{_quoted(c)}'" for n, c in getattr(command, "commands", {}).items()]
        if not inner and (names := _names(command, losses)):
            lines.append(f"{start} -a '{' '.join(names)}'")
        for option in _options(command):
            flags = " ".join(f"-l {o[2:]}" if o.startswith("--") else f"-s {o[1:]}" for o in option.opts)
            found = _choices(option, losses)
            taken = "" if option.is_flag else f" -x -a '{' '.join(found)}'" if found else " -r"
            lines.append(f"{start} {flags}{taken} -d '{_quoted(option)}'")
    return "\n".join(lines) + "\n"


def _quoted(item: Any) -> str:
    text = (item.help or "").strip().splitlines() or [""]
    return text[0].replace("'", "\\'")
