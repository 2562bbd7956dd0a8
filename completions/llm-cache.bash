# Made by scripts/make_completions.py from the command line; not to be edited.

_llm_cache() {
    local IFS=$' \t\n' line current tail prefix breaks= path= option= options= words= kind=words
    local -a given=() found=()
    local i word
    COMPREPLY=()

    # The words up to the cursor, cut at white space alone: bash cuts at = and : as well.
    line=${COMP_LINE:0:COMP_POINT}
    line="${line#*"${COMP_WORDS[0]}"}"
    read -r -a given <<<"$line"
    case $line in *[[:space:]]) given+=("") ;; esac
    [ ${#given[@]} -gt 0 ] || return 0
    current=${given[${#given[@]} - 1]}

    # The command, and the option whose value comes now.
    for ((i = 0; i < ${#given[@]} - 1; i++)); do
        word=${given[i]}
        option=
        case $path in
            exec)
                case $word in
                    --)
                        _llm_cache_rest $((i + 1))
                        return
                        ;;
                    --*=*) ;;
                    -*) option=$word ;;
                    *)
                        case ${given[i - 1]} in
                            --mode | --namespace | --scope | --home | --log-file) ;;
                            *)
                                _llm_cache_rest "$i"
                                return
                                ;;
                        esac
                        ;;
                esac
                ;;
            *)
                case $word in
                    --*=*) ;;
                    -*) option=$word ;;
                    *)
                        case $path in
                            '' | 'token'|'completion') path="${path:+$path }$word" ;;
                        esac
                        ;;
                esac
                ;;
        esac
    done
    prefix=
    case $current in
        --*=*)
            option=${current%%=*}
            prefix=$option=
            ;;
    esac

    case $path in
        '')
            options='-h --help --version -V'
            words='on off restart stop run status stats monitor explore validate setup install uninstall key price usage presets demo exec token completion'
            ;;
        'on')
            options='-h --help --port --host --upstream --mode --scope --log-level --verbose --save'
            case $option in
                --port) kind=files ;;
                --host) kind=files ;;
                --upstream) kind=files ;;
                --mode) kind=words words='cache fresh bypass replay' ;;
                --scope) kind=words words='credential shared' ;;
                --log-level) kind=words words='silent error info debug' ;;
                *) option= ;;
            esac
            ;;
        'off')
            options='-h --help --port --host --upstream --mode --scope --log-level --verbose'
            case $option in
                --port) kind=files ;;
                --host) kind=files ;;
                --upstream) kind=files ;;
                --mode) kind=words words='cache fresh bypass replay' ;;
                --scope) kind=words words='credential shared' ;;
                --log-level) kind=words words='silent error info debug' ;;
                *) option= ;;
            esac
            ;;
        'restart')
            options='-h --help --port --host --upstream --mode --scope --log-level --verbose --save'
            case $option in
                --port) kind=files ;;
                --host) kind=files ;;
                --upstream) kind=files ;;
                --mode) kind=words words='cache fresh bypass replay' ;;
                --scope) kind=words words='credential shared' ;;
                --log-level) kind=words words='silent error info debug' ;;
                *) option= ;;
            esac
            ;;
        'stop')
            options='-h --help'
            ;;
        'run')
            options='-h --help --port --host --upstream --mode --scope --log-level --verbose'
            case $option in
                --port) kind=files ;;
                --host) kind=files ;;
                --upstream) kind=files ;;
                --mode) kind=words words='cache fresh bypass replay' ;;
                --scope) kind=words words='credential shared' ;;
                --log-level) kind=words words='silent error info debug' ;;
                *) option= ;;
            esac
            ;;
        'status')
            options='-h --help --json'
            ;;
        'stats')
            options='-h --help --json'
            ;;
        'monitor')
            options='-h --help --json'
            ;;
        'explore')
            options='-h --help --list -l --json --view --invalidate --all --filter -f --sort'
            case $option in
                --view) kind=keys ;;
                --invalidate) kind=keys ;;
                --filter|-f) kind=files ;;
                --sort) kind=words words='used age hits tokens size provider model prompt' ;;
                *) option= ;;
            esac
            ;;
        'validate')
            options='-h --help --json'
            ;;
        'setup')
            options='-h --help --key-env --key-stdin --provider --no-key --check-key --no-check-key --scope --upstream --port --host --tls-cert --tls-key --allow-hosts --token-env --new-token --ttl --max-entries --max-bytes --from --yes -y'
            case $option in
                --key-env) kind=files ;;
                --provider) kind=words words='anthropic azure bedrock cerebras cohere compatible crusoe deepseek fireworks gemini groq huggingface llamacpp lmstudio mantle mistral moonshot ollama openai openrouter perplexity snowflake together vertex vllm voyage xai zai' ;;
                --scope) kind=words words='credential shared' ;;
                --upstream) kind=files ;;
                --port) kind=files ;;
                --host) kind=files ;;
                --tls-cert) kind=files ;;
                --tls-key) kind=files ;;
                --allow-hosts) kind=files ;;
                --token-env) kind=files ;;
                --ttl) kind=files ;;
                --max-entries) kind=files ;;
                --max-bytes) kind=files ;;
                --from) kind=files ;;
                *) option= ;;
            esac
            ;;
        'install')
            options='-h --help --print --system --force --sandbox --no-sandbox'
            case $option in
                --system) kind=words words='systemd launchd' ;;
                *) option= ;;
            esac
            ;;
        'uninstall')
            options='-h --help --force'
            ;;
        'key')
            options='-h --help --path --method --header --api-key-env --namespace --sample --tier --json'
            kind=files
            case $option in
                --path) kind=files ;;
                --method) kind=files ;;
                --header) kind=files ;;
                --api-key-env) kind=files ;;
                --namespace) kind=files ;;
                --sample) kind=files ;;
                --tier) kind=words words='exact normalized suffix' ;;
                *) option= ;;
            esac
            ;;
        'price')
            options='-h --help --provider --json'
            kind=models
            case $option in
                --provider) kind=words words='anthropic azure bedrock cerebras cohere compatible crusoe deepseek fireworks gemini groq huggingface llamacpp lmstudio mantle mistral moonshot ollama openai openrouter perplexity snowflake together vertex vllm voyage xai zai' ;;
                *) option= ;;
            esac
            ;;
        'usage')
            options='-h --help --provider --path --json'
            kind=files
            case $option in
                --provider) kind=words words='anthropic azure bedrock cerebras cohere compatible crusoe deepseek fireworks gemini groq huggingface llamacpp lmstudio mantle mistral moonshot ollama openai openrouter perplexity snowflake together vertex vllm voyage xai zai' ;;
                --path) kind=files ;;
                *) option= ;;
            esac
            ;;
        'presets')
            options='-h --help --json'
            kind=files
            ;;
        'demo')
            options='-h --help'
            ;;
        'exec')
            options='-h --help --mode --namespace --samples --scope --fail-on-miss --home --isolated --log-file'
            kind=command
            case $option in
                --mode) kind=words words='cache fresh bypass replay' ;;
                --namespace) kind=files ;;
                --samples) kind=files ;;
                --scope) kind=words words='credential shared' ;;
                --home) kind=files ;;
                --log-file) kind=files ;;
                *) option= ;;
            esac
            ;;
        'token')
            options='-h --help'
            words='show new'
            ;;
        'token show')
            options='-h --help'
            ;;
        'token new')
            options='-h --help'
            ;;
        'completion')
            options='-h --help'
            words='install show'
            ;;
        'completion install')
            options='-h --help --shell'
            case $option in
                --shell) kind=words words='bash zsh fish' ;;
                *) option= ;;
            esac
            ;;
        'completion show')
            options='-h --help --shell'
            case $option in
                --shell) kind=words words='bash zsh fish' ;;
                *) option= ;;
            esac
            ;;
        *) return 0 ;;
    esac
    if [ -z "$option" ] || [ "$kind$words" = words ]; then
        case $current in
            -*)
                [ -z "$prefix" ] || return 0
                kind=words words=$options
                ;;
        esac
    fi

    case $kind in
        words) for word in $words; do found+=("$word"); done ;;
        keys | models)
            while read -r word; do found+=("$word"); done < <(
                llm-cache _complete "$kind" "${current#"$prefix"}" 2>/dev/null
            )
            ;;
        command)
            while read -r word; do found+=("$word"); done < <(compgen -c -- "$current")
            ;;
        *)
            [ -n "$prefix" ] || return 0 # readline offers files by itself
            while read -r word; do found+=("$word"); done < <(
                compgen -f -- "${current#"$prefix"}"
            )
            ;;
    esac

    # What goes into the line replaces only what follows the last break.
    case $COMP_WORDBREAKS in *=*) breaks+='=' ;; esac
    case $COMP_WORDBREAKS in *:*) breaks+=':' ;; esac
    tail=$current
    [ -z "$breaks" ] || tail=${current##*[$breaks]}
    for word in ${found[@]+"${found[@]}"}; do
        word=$prefix$word
        case $word in "$current"*) COMPREPLY+=("${word#"${current%"$tail"}"}") ;; esac
    done
}

# The command that exec runs, from the word with this number on: as its own completion has it.
_llm_cache_rest() {
    if declare -F _command_offset >/dev/null; then
        _command_offset $(($1 + 1))
    elif [ "$1" -eq $((${#given[@]} - 1)) ]; then
        while read -r word; do COMPREPLY+=("$word"); done < <(compgen -c -- "$current")
    fi
}

complete -o bashdefault -o default -F _llm_cache llm-cache
