# fish completion for PROGRAM
function FUNCTION
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    for line in ($words[1] complete -- $words[2..-1] "$word" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path (string replace -r '^--[^=]*=' '' -- $word)
            case ':folders'
                __fish_complete_directories (string replace -r '^--[^=]*=' '' -- $word)
            case ':*'
            case '*'
                echo $line
        end
    end
end
complete -c PROGRAM -e
complete -c PROGRAM -f -a '(FUNCTION)'
