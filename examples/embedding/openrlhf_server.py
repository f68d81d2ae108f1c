"""A learned reward for OpenRLHF's --remote_rm_url.  python openrlhf_server.py REWARD PORT

The same as `python -m rlsft.integrations.openrlhf_reward REWARD --port PORT`.
"""

import sys

from rlsft.integrations.openrlhf_reward import make_server
from rlsft.integrations.rewards import RewardFunction

reward, port = sys.argv[1:]
server = make_server(RewardFunction.from_pretrained(reward), port=int(port))
print(f"--remote_rm_url http://127.0.0.1:{server.server_address[1]}/get_reward", flush=True)
server.serve_forever()
