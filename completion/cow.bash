# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for cow(1)

_cow() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]} options
	local verbs='format mount umount clone rm ls diff du stat import export same check scrub dump info sync help'

	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$verbs --version --help" -- "$cur")
		return
	fi
	case $verb in
	format) options='--size --force --quiet' ;;
	mount) options='-o -f -r -d' ;;
	umount) options='--lazy' ;;
	clone) options='--read-only --verbose' ;;
	rm) options='--force --verbose' ;;
	ls) options='--long --json' ;;
	diff) options='--patch --json --top --quiet' ;;
	du) options='--human-readable --summary --json' ;;
	stat | info) options='--json' ;;
	import) options='--tar --one-file-system --quiet' ;;
	export) options='--tar --quiet' ;;
	check) options='--data --json --repair --dry-run --undo --revert' ;;
	scrub) options='--rate --json' ;;
	sync) options='--drain' ;;
	help)
		mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur")
		return
		;;
	esac
	case $prev in
	-o)
		mapfile -t COMPREPLY < <(compgen -W 'ro rw allow_other suid dev noexec commit= cache= dirty=' -- "$cur")
		return
		;;
	--rate)
		mapfile -t COMPREPLY < <(compgen -W '20M 100M 1G max' -- "$cur")
		return
		;;
	--size)
		mapfile -t COMPREPLY < <(compgen -W '16M 1G 10G 100G 1T' -- "$cur")
		return
		;;
	esac
	case $cur in
	-*) mapfile -t COMPREPLY < <(compgen -W "$options --help" -- "$cur") ;;
	*)
		if [ "$verb $COMP_CWORD" = 'dump 3' ]; then
			mapfile -t COMPREPLY < <(compgen -W 'super counts tree block' -- "$cur")
		elif [ "$verb" = umount ]; then
			mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi
		;;
	esac
}
complete -o filenames -F _cow cow
