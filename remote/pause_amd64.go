package remote

func spinPause()
