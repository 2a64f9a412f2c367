"""What a shell completes behind ``python -m sweeps``: names of sweeps, settings, files of groups,
flags. The script holds them all, so that a TAB starts no Python.

    source <(python -m sweeps completion bash)     # in ~/.bashrc; zsh likewise
    python -m sweeps completion fish | source      # in ~/.config/fish/config.fish
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conf import schema
from conf.describe import describe, nearest
from conf.pipes import ends_with_reader
from conf.sources import list_group
from sweeps.command import FLAGS
from sweeps.engine.catalogue import discover

__all__ = ["SHELLS", "main"]

COMMANDS = ("all", "bundle", "completion", "prune", "sync", "ui", "verify")
BASH = """\
_sweeps_words() {
  # The whole word before the cursor: bash itself splits it at =
  local line="${COMP_LINE:0:COMP_POINT}"
  local word="${line##* }" modules="@modules@" words=""
  COMPREPLY=()
  case "$line" in
    *" -m sweeps."*" "*) words="@settings@" ;;
    *" -m sweeps all "*) words="@settings@" ;;
    *" -m sweeps "*) words="@commands@ output= --json --version --help" ;;
    *" -m sweeps"*) words="$modules" ;;
    *) compopt -o default 2>/dev/null; return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" == *= ]]; then
    compopt -o nospace 2>/dev/null
  fi
  if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
  fi
}
complete -F _sweeps_words python python3
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
FISH = """\
function __sweeps_words
  set -l line (commandline -cp)
  if string match -q '* -m sweeps.* *' -- $line; or string match -q '* -m sweeps all *' -- $line
    string split ' ' -- '@settings@'
  else if string match -q '* -m sweeps *' -- $line
    string split ' ' -- '@commands@ output= --json --version --help'
  else if string match -q '* -m sweeps*' -- $line
    string split ' ' -- '@modules@'
  end
end
complete -c python -a '(__sweeps_words)'
complete -c python3 -a '(__sweeps_words)'
"""
SHELLS = {"bash": BASH, "zsh": ZSH + BASH, "fish": FISH}


@ends_with_reader
def main(argv: Sequence[str]) -> int:
    """Prints the script of a shell. Returns 0, 2 for another word."""
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip() if __doc__ else "")
        return 0
    if len(argv) != 1 or argv[0] not in SHELLS:
        got = " ".join(argv) or "nothing"
        near = nearest(got, SHELLS)
        print(
            f"error: completion {got}: expected a shell, one of {', '.join(SHELLS)}{near}",
            file=sys.stderr,
        )
        return 2
    modules = ["sweeps", *(f"sweeps.{sweep.name}" for sweep in discover())]
    script = SHELLS[argv[0]]
    for name, words in (
        ("settings", _list_settings()),
        ("commands", list(COMMANDS)),
        ("modules", modules),
    ):
        script = script.replace(f"@{name}@", " ".join(words))
    print(script, end="")
    return 0


def _list_settings() -> list[str]:
    """``group=file``, ``key=choice`` where there are choices, else ``key=``, and the flags."""
    index = describe(schema.Sweep)
    words = [f"{group}={name}" for group in index.groups for name in list_group(group)]
    for key, setting in index.settings.items():
        kinds = setting.choices or (("true", "false") if setting.kind is bool else ("",))
        words += [f"{key}={choice}" for choice in kinds]
    return [*words, *FLAGS]
