"""What comes with the command: shell completions (by shtab) and the man pages (by argparse-manpage and docutils), from memrun's own tables.

python tools/papers.py DIRECTORY [completions] [man]      writes DIRECTORY/share/...
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, JOBS_PAGE = "man/man1/memrun.1", "man/man5/memrun-jobs.5"
PLACES = {
    "bash": "bash-completion/completions/memrun",
    "zsh": "zsh/site-functions/_memrun",
    "fish": "fish/vendor_completions.d/memrun.fish",
}
NAMES = "command memrun ps 2>/dev/null | awk 'NR > 1 { print $1 }' | sort -u"
PREAMBLES = {
    "bash": f"""
_memrun_jobs() {{ compgen -W "$({NAMES})" -- "$1"; }}
_memrun_users() {{ compgen -u -- "$1"; }}
_memrun_groups() {{ compgen -g -- "$1"; }}
_memrun_commands() {{ compgen -c -- "$1"; }}
_memrun_pids() {{ compgen -W "$(ps -u "$(id -u)" -o pid= 2>/dev/null)" -- "$1"; }}
_memrun_signals() {{ compgen -W "$(compgen -A signal SIG | sed s/^SIG//)" -- "$1"; }}
""",
    "zsh": f"""
_memrun_jobs() {{ local -a names; names=(${{(f)"$({NAMES})"}}); compadd -a names }}
""",
    "fish": f"""
function __memrun_jobs; {NAMES}; end
""",
}
# Behind `--` (and in bash behind the first plain word) stands another command, with completions of its own: nothing that shtab knows.
AFTER = {
    "bash": """
_memrun() {
  local i
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${COMP_WORDS[i]} == -- ]] || continue
    if ((i + 1 < COMP_CWORD)) && declare -F _comp_command_offset >/dev/null; then _comp_command_offset $((i + 1))
    elif ((i + 1 < COMP_CWORD)) && declare -F _command_offset >/dev/null; then _command_offset $((i + 1))
    elif ((i + 1 < COMP_CWORD)); then mapfile -t COMPREPLY < <(compgen -f -- "$2")
    else mapfile -t COMPREPLY < <(compgen -c -- "$2"); fi
    return
  done
  _shtab_memrun "$@"
}
complete -o filenames -F _memrun memrun
""",
    "zsh": "",
    "fish": """
function __memrun_behind
  set -l words (commandline -opc)
  set -l at (contains -i -- -- $words); or return
  complete -C (string join ' ' -- (string escape -- $words[(math $at + 1)..-1]) (commandline -ct))
end
complete -c memrun -n 'contains -- -- (commandline -opc)' -a '(__memrun_behind)'
""",
}
ZSH_BEHIND = """
_memrun_or_command() {
  local at=${words[(i)--]}
  if (( at < CURRENT )); then
    shift $at words; (( CURRENT -= at )); _normal; return
  fi
  _shtab_memrun "$@"
}
"""


def completions(share: Path) -> list[Path]:
    """One file for each shell, where that shell looks for it."""
    import shtab

    from tools.grammar import build

    made = []
    for shell, place in PLACES.items():
        root = "_shtab_memrun"
        text = shtab.complete(build(), shell, root_prefix="memrun", preamble=PREAMBLES[shell]) + AFTER[shell]
        if shell == "zsh":  # its last lines call the function
            head, last = text.rsplit("typeset -A opt_args", 1)
            text = f"{head}{ZSH_BEHIND}\ntypeset -A opt_args{last.replace(root, '_memrun_or_command')}"
        made.append(_write(share / place, text))
    return made


def man(share: Path) -> list[Path]:
    """memrun(1) and memrun-jobs(5)."""
    from argparse_manpage.manpage import Manpage

    from memrun import __version__, cli
    from memrun.jobfile.schema import schema
    from tools import jobpage
    from tools.grammar import build

    facts = {
        "project_name": "memrun",
        "version": __version__,
        "manual_title": "memrun",
        "description": "run commands under memory limits",
    }
    page = Manpage(build(), facts, format="single-commands-section")
    page.date = ""  # the same source makes the same page
    sections = {
        "synopsis": "memrun [run] OPTIONS [--] COMMAND...\nmemrun VERB ...",
        "examples": cli.USAGE,
        "exit status": cli.STATUSES.strip("\n"),
        "see also": "memrun-jobs(5); README and docs/ in the source; memrun VERB --help; memrun doctor",
    }
    for title, text in sections.items():
        page.add_section(title, ">", ".nf\n" + _literal(text) + "\n.fi")
    text = str(page).replace("\n'", "\n\\&'")  # a wrapped line of ours is no request to troff
    return [_write(share / PAGE, text), _write(share / JOBS_PAGE, jobpage.page(schema()))]


def _literal(text: str) -> str:
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in lines)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write(target: Path, kinds: list[str]) -> list[Path]:
    """All that is asked for, below target/share."""
    wanted = [(name, make) for name, make in (("completions", completions), ("man", man)) if name in kinds or not kinds]
    return [path for _, make in wanted for path in make(target / "share")]


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    target, *kinds = sys.argv[1:]
    for path in write(Path(target), kinds):
        print(path)
