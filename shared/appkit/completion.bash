# bash completion for PROGRAM
FUNCTION() {
    # bash breaks words at = and : too; words that no blank parts are put together.
    local words=() word last= i files= line
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((${#words[@]})) && [[ $word == [=:]* || $last == *[=:] ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        last=$word
    done
    local all=${words[${#words[@]}-1]}
    local lead=${all%"${COMP_WORDS[COMP_CWORD]}"}
    [[ ${COMP_WORDS[COMP_CWORD]} == [=:] ]] && lead=$all
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :*) files=$line ;;
        *) line=${line%%$'\t'*}; COMPREPLY+=("${line#"$lead"}") ;;
        esac
    done < <("${COMP_WORDS[0]}" complete -- "${words[@]}" 2>/dev/null)
    case $files in
    :files) compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "${all#"$lead"}") ;;
    :folders) compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "${all#"$lead"}") ;;
    esac
}
complete -F FUNCTION PROGRAM
