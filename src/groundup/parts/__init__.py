"""Parts of a model that compute what the pages' do, faster in training, and how they get into it."""
