# Made by scripts/make_completions.py from the command line; not to be edited.

# The words of the command, without options.
function __llm_cache_words
    set -l given (commandline -opc)
    for word in $given[2..-1]
        string match -q -- '-*' $word; or echo $word
    end
end

# True when these words, and no more, were given.
function __llm_cache_at
    set -l given (__llm_cache_words)
    test "$given" = "$argv"
end

# True when the command begins with these words.
function __llm_cache_in
    set -l given (__llm_cache_words)
    set -l count (count $argv)
    test (count $given) -ge $count; and test "$given[1..$count]" = "$argv"
end

# The command that exec runs, as its own completion has it.
function __llm_cache_rest
    set -l given (commandline -opc)
    set -l at (contains -i -- -- $given); or return
    set -l rest
    test $at -lt (count $given); and set rest (string escape -- $given[(math $at + 1)..-1])
    set -l line (string join ' ' -- $rest (commandline -ct))
    complete -C "$line"
end

complete -c llm-cache -f
complete -c llm-cache -n __llm_cache_at -a on -d 'Start the proxy in the background, or switch caching on.'
complete -c llm-cache -n __llm_cache_at -a off -d 'Forward everything and store nothing, until `on`.'
complete -c llm-cache -n __llm_cache_at -a restart -d 'Stop and start, with what the running proxy was started with.'
complete -c llm-cache -n __llm_cache_at -a stop -d 'Stop the proxy.'
complete -c llm-cache -n __llm_cache_at -a run -d 'Run the proxy in the foreground, for a service manager.'
complete -c llm-cache -n __llm_cache_at -a status -d 'Tell whether the proxy is up, and how it does.'
complete -c llm-cache -n __llm_cache_at -a stats -d 'Show hits, and tokens and money saved.'
complete -c llm-cache -n __llm_cache_at -a monitor -d 'Follow the calls as they are answered, until Ctrl-C.'
complete -c llm-cache -n __llm_cache_at -a explore -d 'Browse, search, view and remove what is in the cache.'
complete -c llm-cache -n __llm_cache_at -a validate -d 'Check every setting and file, and the proxy if it is up.'
complete -c llm-cache -n __llm_cache_at -a setup -d 'Configure the proxy: keys, port, host, limits.'
complete -c llm-cache -n __llm_cache_at -a install -d 'Start the proxy at every boot, by systemd or launchd.'
complete -c llm-cache -n __llm_cache_at -a uninstall -d 'Stop the proxy and take it from the boot.'
complete -c llm-cache -n __llm_cache_at -a key -d 'Print the key of a request (x-cache-key).'
complete -c llm-cache -n __llm_cache_at -a price -d 'Print what a model costs, in US dollars.'
complete -c llm-cache -n __llm_cache_at -a usage -d 'Print the tokens that an answer\'s body names.'
complete -c llm-cache -n __llm_cache_at -a presets -d 'Show what is left out of the keys of known agents\' requests.'
complete -c llm-cache -n __llm_cache_at -a demo -d 'Show the cache at work on this machine, with no key and no network.'
complete -c llm-cache -n __llm_cache_at -a exec -d 'Run a command with a proxy of its own.'
complete -c llm-cache -n __llm_cache_at -a token -d 'Show or change the token that clients send.'
complete -c llm-cache -n __llm_cache_at -a completion -d 'Complete commands, options, keys and models with the Tab key.'
complete -c llm-cache -n __llm_cache_at -s h -d 'Show how it is used.'
complete -c llm-cache -n __llm_cache_at -l help -d 'Show how it is used.'
complete -c llm-cache -n __llm_cache_at -l version -d 'Show the version and exit.'
complete -c llm-cache -n __llm_cache_at -s V -d 'Show the version and exit.'

complete -c llm-cache -n '__llm_cache_in on' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in on' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in on' -l port -x -d 'Listen on this port (CACHE_PORT).'
complete -c llm-cache -n '__llm_cache_in on' -l host -x -d 'Listen on this address (CACHE_HOST).'
complete -c llm-cache -n '__llm_cache_in on' -l upstream -x -d 'Send everything to this base URL (CACHE_UPSTREAM).'
complete -c llm-cache -n '__llm_cache_in on' -l mode -x -a 'cache fresh bypass replay' -d 'cache, fresh, bypass or replay, by default (CACHE_MODE).'
complete -c llm-cache -n '__llm_cache_in on' -l scope -x -a 'credential shared' -d 'credential or shared (CACHE_SCOPE).'
complete -c llm-cache -n '__llm_cache_in on' -l log-level -x -a 'silent error info debug' -d 'silent, error, info or debug (CACHE_LOG_LEVEL).'
complete -c llm-cache -n '__llm_cache_in on' -l verbose -d 'The same as --log-level debug.'
complete -c llm-cache -n '__llm_cache_in on' -l save -d 'Write the flags into .env as well, for every later start.'

complete -c llm-cache -n '__llm_cache_in off' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in off' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in off' -l port -x -d 'Listen on this port (CACHE_PORT).'
complete -c llm-cache -n '__llm_cache_in off' -l host -x -d 'Listen on this address (CACHE_HOST).'
complete -c llm-cache -n '__llm_cache_in off' -l upstream -x -d 'Send everything to this base URL (CACHE_UPSTREAM).'
complete -c llm-cache -n '__llm_cache_in off' -l mode -x -a 'cache fresh bypass replay' -d 'cache, fresh, bypass or replay, by default (CACHE_MODE).'
complete -c llm-cache -n '__llm_cache_in off' -l scope -x -a 'credential shared' -d 'credential or shared (CACHE_SCOPE).'
complete -c llm-cache -n '__llm_cache_in off' -l log-level -x -a 'silent error info debug' -d 'silent, error, info or debug (CACHE_LOG_LEVEL).'
complete -c llm-cache -n '__llm_cache_in off' -l verbose -d 'The same as --log-level debug.'

complete -c llm-cache -n '__llm_cache_in restart' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in restart' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in restart' -l port -x -d 'Listen on this port (CACHE_PORT).'
complete -c llm-cache -n '__llm_cache_in restart' -l host -x -d 'Listen on this address (CACHE_HOST).'
complete -c llm-cache -n '__llm_cache_in restart' -l upstream -x -d 'Send everything to this base URL (CACHE_UPSTREAM).'
complete -c llm-cache -n '__llm_cache_in restart' -l mode -x -a 'cache fresh bypass replay' -d 'cache, fresh, bypass or replay, by default (CACHE_MODE).'
complete -c llm-cache -n '__llm_cache_in restart' -l scope -x -a 'credential shared' -d 'credential or shared (CACHE_SCOPE).'
complete -c llm-cache -n '__llm_cache_in restart' -l log-level -x -a 'silent error info debug' -d 'silent, error, info or debug (CACHE_LOG_LEVEL).'
complete -c llm-cache -n '__llm_cache_in restart' -l verbose -d 'The same as --log-level debug.'
complete -c llm-cache -n '__llm_cache_in restart' -l save -d 'Write the flags into .env as well, for every later start.'

complete -c llm-cache -n '__llm_cache_in stop' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in stop' -l help -d 'Show how it is used.'

complete -c llm-cache -n '__llm_cache_in run' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in run' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in run' -l port -x -d 'Listen on this port (CACHE_PORT).'
complete -c llm-cache -n '__llm_cache_in run' -l host -x -d 'Listen on this address (CACHE_HOST).'
complete -c llm-cache -n '__llm_cache_in run' -l upstream -x -d 'Send everything to this base URL (CACHE_UPSTREAM).'
complete -c llm-cache -n '__llm_cache_in run' -l mode -x -a 'cache fresh bypass replay' -d 'cache, fresh, bypass or replay, by default (CACHE_MODE).'
complete -c llm-cache -n '__llm_cache_in run' -l scope -x -a 'credential shared' -d 'credential or shared (CACHE_SCOPE).'
complete -c llm-cache -n '__llm_cache_in run' -l log-level -x -a 'silent error info debug' -d 'silent, error, info or debug (CACHE_LOG_LEVEL).'
complete -c llm-cache -n '__llm_cache_in run' -l verbose -d 'The same as --log-level debug.'

complete -c llm-cache -n '__llm_cache_in status' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in status' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in status' -l json -d 'Print JSON for a script.'

complete -c llm-cache -n '__llm_cache_in stats' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in stats' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in stats' -l json -d 'Print the figures as /stats gives them.'

complete -c llm-cache -n '__llm_cache_in monitor' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in monitor' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in monitor' -l json -d 'Print each event as a line of JSON.'

complete -c llm-cache -n '__llm_cache_in explore' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in explore' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in explore' -l list -d 'Print one line for each entry.'
complete -c llm-cache -n '__llm_cache_in explore' -s l -d 'Print one line for each entry.'
complete -c llm-cache -n '__llm_cache_in explore' -l json -d 'Print as JSON: the list, or one entry.'
complete -c llm-cache -n '__llm_cache_in explore' -l view -x -a '(llm-cache _complete keys (commandline -ct) 2>/dev/null)' -d 'Print the entry of this key (prefix).'
complete -c llm-cache -n '__llm_cache_in explore' -l invalidate -x -a '(llm-cache _complete keys (commandline -ct) 2>/dev/null)' -d 'Remove the entry of this key (prefix).'
complete -c llm-cache -n '__llm_cache_in explore' -l all -d 'With --invalidate: all that the prefix fits.'
complete -c llm-cache -n '__llm_cache_in explore' -l filter -x -d 'Only entries with these words.'
complete -c llm-cache -n '__llm_cache_in explore' -s f -x -d 'Only entries with these words.'
complete -c llm-cache -n '__llm_cache_in explore' -l sort -x -a 'used age hits tokens size provider model prompt' -d 'used, age, hits, tokens, size, provider, model or prompt.'

complete -c llm-cache -n '__llm_cache_in validate' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in validate' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in validate' -l json -d 'Print JSON for a script.'

complete -c llm-cache -n '__llm_cache_in setup' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in setup' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in setup' -l key-env -x -d 'Keep the real key that is in this environment variable; repeatable.'
complete -c llm-cache -n '__llm_cache_in setup' -l key-stdin -d 'Keep the real key that comes from stdin.'
complete -c llm-cache -n '__llm_cache_in setup' -l provider -x -a 'anthropic azure bedrock cerebras cohere compatible crusoe deepseek fireworks gemini groq huggingface llamacpp lmstudio mantle mistral moonshot ollama openai openrouter perplexity snowflake together vertex vllm voyage xai zai' -d 'Whose key it is; anthropic unless the variable tells.'
complete -c llm-cache -n '__llm_cache_in setup' -l no-key -d 'Keep no key: each client\'s own passes through.'
complete -c llm-cache -n '__llm_cache_in setup' -l check-key -d 'Try the key with one free call (lists models).'
complete -c llm-cache -n '__llm_cache_in setup' -l no-check-key -d 'Try the key with one free call (lists models).'
complete -c llm-cache -n '__llm_cache_in setup' -l scope -x -a 'credential shared' -d 'credential or shared (CACHE_SCOPE).'
complete -c llm-cache -n '__llm_cache_in setup' -l upstream -x -d 'Send everything to this base URL (CACHE_UPSTREAM).'
complete -c llm-cache -n '__llm_cache_in setup' -l port -x -d 'Listen on this port (CACHE_PORT).'
complete -c llm-cache -n '__llm_cache_in setup' -l host -x -d 'Listen on this address (CACHE_HOST); a token is made when it needs one.'
complete -c llm-cache -n '__llm_cache_in setup' -l tls-cert -x -d 'Serve HTTPS by this certificate (CACHE_TLS_CERTFILE).'
complete -c llm-cache -n '__llm_cache_in setup' -l tls-key -x -d 'Its key (CACHE_TLS_KEYFILE).'
complete -c llm-cache -n '__llm_cache_in setup' -l allow-hosts -x -d 'Further names clients call it by, with commas (CACHE_ALLOW_HOSTS).'
complete -c llm-cache -n '__llm_cache_in setup' -l token-env -x -d 'Take the token from this environment variable.'
complete -c llm-cache -n '__llm_cache_in setup' -l new-token -d 'Make a new token (CACHE_AUTH_TOKEN).'
complete -c llm-cache -n '__llm_cache_in setup' -l ttl -x -d 'Keep answers that long, 0: no limit (CACHE_TTL_SEC).'
complete -c llm-cache -n '__llm_cache_in setup' -l max-entries -x -d 'Keep at most so many answers (CACHE_MAX_ENTRIES).'
complete -c llm-cache -n '__llm_cache_in setup' -l max-bytes -x -d 'Use at most so much disk (CACHE_MAX_BYTES).'
complete -c llm-cache -n '__llm_cache_in setup' -l from -x -d 'Take over llm-cache-proxy\'s .env, normalize.json and prices.json; asks nothing.'
complete -c llm-cache -n '__llm_cache_in setup' -l yes -d 'Ask nothing; take defaults for the rest.'
complete -c llm-cache -n '__llm_cache_in setup' -s y -d 'Ask nothing; take defaults for the rest.'

complete -c llm-cache -n '__llm_cache_in install' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in install' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in install' -l print -d 'Print the unit and touch nothing.'
complete -c llm-cache -n '__llm_cache_in install' -l system -x -a 'systemd launchd' -d 'systemd or launchd; this system\'s own unless given, any for --print.'
complete -c llm-cache -n '__llm_cache_in install' -l force -d 'Also when it is another home\'s, or not by llm-cache.'
complete -c llm-cache -n '__llm_cache_in install' -l sandbox -d 'Let it write to its own folders only, where systemd can do that.'
complete -c llm-cache -n '__llm_cache_in install' -l no-sandbox -d 'Let it write to its own folders only, where systemd can do that.'

complete -c llm-cache -n '__llm_cache_in uninstall' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in uninstall' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in uninstall' -l force -d 'Also when it is another home\'s, or not by llm-cache.'

complete -c llm-cache -n '__llm_cache_in key' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in key' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in key' -l path -x -d 'Path and query of the request.'
complete -c llm-cache -n '__llm_cache_in key' -l method -x -d 'Method of the request.'
complete -c llm-cache -n '__llm_cache_in key' -l header -x -d 'A header of the request, \'name: value\'; repeatable.'
complete -c llm-cache -n '__llm_cache_in key' -l api-key-env -x -d 'Environment variable with the API key that the client sends.'
complete -c llm-cache -n '__llm_cache_in key' -l namespace -x -d 'x-cache-namespace of the request.'
complete -c llm-cache -n '__llm_cache_in key' -l sample -x -d 'x-cache-sample of the request.'
complete -c llm-cache -n '__llm_cache_in key' -l tier -x -a 'exact normalized suffix' -d 'exact, normalized or suffix.'
complete -c llm-cache -n '__llm_cache_in key' -l json -d 'Print JSON for a script.'
complete -c llm-cache -n '__llm_cache_in key' -F

complete -c llm-cache -n '__llm_cache_in price' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in price' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in price' -l provider -x -a 'anthropic azure bedrock cerebras cohere compatible crusoe deepseek fireworks gemini groq huggingface llamacpp lmstudio mantle mistral moonshot ollama openai openrouter perplexity snowflake together vertex vllm voyage xai zai' -d 'Who serves it; its maker, or the only one who does.'
complete -c llm-cache -n '__llm_cache_in price' -l json -d 'Print JSON for a script.'
complete -c llm-cache -n '__llm_cache_in price' -a '(llm-cache _complete models (commandline -ct) 2>/dev/null)'

complete -c llm-cache -n '__llm_cache_in usage' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in usage' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in usage' -l provider -x -a 'anthropic azure bedrock cerebras cohere compatible crusoe deepseek fireworks gemini groq huggingface llamacpp lmstudio mantle mistral moonshot ollama openai openrouter perplexity snowflake together vertex vllm voyage xai zai' -d 'Whose answer it is.'
complete -c llm-cache -n '__llm_cache_in usage' -l path -x -d 'Path the answer came from.'
complete -c llm-cache -n '__llm_cache_in usage' -l json -d 'Print JSON for a script.'
complete -c llm-cache -n '__llm_cache_in usage' -F

complete -c llm-cache -n '__llm_cache_in presets' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in presets' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in presets' -l json -d 'Print JSON for a script.'
complete -c llm-cache -n '__llm_cache_in presets' -F

complete -c llm-cache -n '__llm_cache_in demo' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in demo' -l help -d 'Show how it is used.'

complete -c llm-cache -n '__llm_cache_in exec' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in exec' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in exec' -l mode -x -a 'cache fresh bypass replay' -d 'cache, fresh, bypass or replay (CACHE_MODE).'
complete -c llm-cache -n '__llm_cache_in exec' -l namespace -x -d 'Namespace of its requests (CACHE_NAMESPACE).'
complete -c llm-cache -n '__llm_cache_in exec' -l samples -x -d 'auto: its n-th equal request is sample n (CACHE_SAMPLE).'
complete -c llm-cache -n '__llm_cache_in exec' -l scope -x -a 'credential shared' -d 'credential or shared (CACHE_SCOPE).'
complete -c llm-cache -n '__llm_cache_in exec' -l fail-on-miss -d 'Exit code 1 when anything wasn\'t in the cache; --mode is replay unless given.'
complete -c llm-cache -n '__llm_cache_in exec' -l home -r -F -d 'Use the store and settings of this home.'
complete -c llm-cache -n '__llm_cache_in exec' -l isolated -d 'Use an empty store that goes with the command.'
complete -c llm-cache -n '__llm_cache_in exec' -l log-file -r -F -d 'Write the log of its proxy here; there is none otherwise.'
complete -c llm-cache -n '__llm_cache_in exec' -a '(__llm_cache_rest)'

complete -c llm-cache -n '__llm_cache_at token' -a show -d 'Print the token (CACHE_AUTH_TOKEN), and nothing else.'
complete -c llm-cache -n '__llm_cache_at token' -a new -d 'Make a new token, write it into .env and print it.'
complete -c llm-cache -n '__llm_cache_in token' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in token' -l help -d 'Show how it is used.'

complete -c llm-cache -n '__llm_cache_in token show' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in token show' -l help -d 'Show how it is used.'

complete -c llm-cache -n '__llm_cache_in token new' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in token new' -l help -d 'Show how it is used.'

complete -c llm-cache -n '__llm_cache_at completion' -a install -d 'Put the completion of a shell in place, and say what to do with it.'
complete -c llm-cache -n '__llm_cache_at completion' -a show -d 'Print the completion script of a shell.'
complete -c llm-cache -n '__llm_cache_in completion' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in completion' -l help -d 'Show how it is used.'

complete -c llm-cache -n '__llm_cache_in completion install' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in completion install' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in completion install' -l shell -x -a 'bash zsh fish' -d 'bash, zsh or fish; that of $SHELL unless given.'

complete -c llm-cache -n '__llm_cache_in completion show' -s h -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in completion show' -l help -d 'Show how it is used.'
complete -c llm-cache -n '__llm_cache_in completion show' -l shell -x -a 'bash zsh fish' -d 'bash, zsh or fish; that of $SHELL unless given.'
