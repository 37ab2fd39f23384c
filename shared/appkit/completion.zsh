#compdef PROGRAM
# zsh completion for PROGRAM
FUNCTION() {
    local line files= lead=
    local -a found
    for line in "${(@f)$("$words[1]" complete -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}"; do
        case $line in
        :*) files=$line ;;
        *) line=${line//:/\\:}; found+=("${line/$'\t'/:}") ;;
        esac
    done
    (( $#found )) && _describe -t words 'PROGRAM' found
    if [[ $PREFIX == --*=* ]]; then
        compset -P '*='
    fi
    case $files in
    :files) _files ;;
    :folders) _files -/ ;;
    esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    FUNCTION "$@"
else
    compdef FUNCTION PROGRAM
fi
